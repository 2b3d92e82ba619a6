"""What a job is: payloads, schema, builders, states, keys, and the read side."""
