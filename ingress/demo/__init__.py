"""What ``3ox demo`` and the tests bring along: servers that stand in for services on the net."""
