"""What all ingress adapters share; it imports none of them."""
