"""Makes a certificate authority and a server certificate for one sandbox, with trustme.

The authority exists as long as the sandbox. Its key never leaves the process; its certificate is
written to a file, for clients to trust.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

#: The host that every SDK calls.
SERVICE_HOST: Final = "api.bigcommerce.com"


class Authority:
    """A certificate authority, and the file with its certificate."""

    def __init__(self, ca_file: str | None, host: str) -> None:
        """Issue a certificate for `host`, for loopback names and for the service.

        `ca_file` None writes to a new temporary folder. Raises RuntimeError without trustme,
        OSError if the file cannot be written.
        """
        try:
            import trustme
        except ImportError:
            message = "HTTPS needs trustme: pip install 'bc_attrvals[sandbox]'"
            raise RuntimeError(message) from None
        authority = trustme.CA(organization_name="bc_attrvals sandbox")
        names = dict.fromkeys(("127.0.0.1", "::1", "localhost", SERVICE_HOST, host.strip("[]")))
        certificate = authority.issue_cert(*names)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self.context)
        self._is_temporary = ca_file is None
        self._path = Path(ca_file or f"{mkdtemp(prefix='bc-attrvals-ca-')}/ca.pem").absolute()
        self._path.write_bytes(authority.cert_pem.bytes())
        self.ca_file = str(self._path)

    def close(self) -> None:
        """Delete a temporary file and its folder."""
        if self._is_temporary:
            self._path.unlink(missing_ok=True)
            self._path.parent.rmdir()
