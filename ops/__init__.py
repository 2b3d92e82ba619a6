"""What the machine provides: settings, logs, the store, process supervision."""
