"""The REST API: ``3ox rest``, Litestar on uvicorn."""
