"""Certificates for tests of TLS: an authority of one's own, and what it signs."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID = (timedelta(hours=-1), timedelta(days=1))
EXPIRED = (timedelta(days=-2), timedelta(days=-1))


class Identity(NamedTuple):
    """A server's certificate and its key, both in PEM; the key as PKCS#8, which Kafka insists on."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates; `pem` is its own. Two of the same name are strangers all the same."""

    def __init__(self, name: str = "authority") -> None:
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._sign(name, self._key, VALID, authority=True)

    def issue(self, host: str = "localhost", valid: tuple[timedelta, timedelta] = VALID) -> Identity:
        """A certificate for a server called `host`, valid from and until these times from now on."""
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Identity(self._sign(host, key, valid, authority=False), secret)

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, valid: tuple[timedelta, timedelta], *, authority: bool
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + valid[0])
            .not_valid_after(now + valid[1])
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if not authority:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
