"""The live dashboard: pages rendered here, kept current by server-sent events and one small script."""
