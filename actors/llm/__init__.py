"""Who answers an ``ask``: the provider interface, two providers, and the order in which they are tried."""
