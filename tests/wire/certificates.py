"""Certificates for a test, made by the openssl program."""

import pathlib
import subprocess


class Authority:
    """Signs certificates; everything lies in `folder`."""

    def __init__(self, folder, name="test-root"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = self.folder / "ca.key"
        self.certificate = self.folder / "ca.pem"
        openssl(
            *("req", "-x509", *NEW_KEY, "-keyout", self.key, "-out", self.certificate),
            *("-subj", f"/CN={name}", "-days", "30"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),  # Python 3.13 insists on it.
        )

    def issue(self, name, days=30):
        """Paths of a certificate and its key, good for localhost."""
        key, request = self.folder / f"{name}.key", self.folder / f"{name}.csr"
        certificate, names = self.folder / f"{name}.pem", self.folder / f"{name}.ext"
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", *NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key),
            *("-CAcreateserial", "-days", days, "-out", certificate, "-extfile", names),
        )
        return certificate, key


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(*words, data=b""):
    done = subprocess.run(["openssl", *map(str, words)], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="replace")
