"""TLS contexts, and what can go wrong on the way to a connection, in words."""

import socket
import ssl


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context with the given authority, else the system's, else certifi's if Python has no
    certificate store.
    """
    paths = ssl.get_default_verify_paths()
    if not (ca_file or paths.cafile or paths.capath):
        import certifi  # needed only by a Python without a certificate store

        ca_file = certifi.where()
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def os_error_text(error: OSError) -> str:
    """Describe an OSError in words that need no errno table."""
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    return (error.strerror or str(error) or type(error).__name__).lower()
