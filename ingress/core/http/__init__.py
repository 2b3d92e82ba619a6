"""What the adapters served over HTTP (REST and dashboard) share: state, authentication, errors, events."""
