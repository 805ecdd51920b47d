"""Assembly: settings -> objects -> the ASGI app. The only place that builds."""
