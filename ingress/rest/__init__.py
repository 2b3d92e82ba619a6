"""The REST door: ``3ox rest``, Litestar on uvicorn."""
