"""Between the server and the application: loading it, its lifespan, one cycle per request, older interfaces."""
