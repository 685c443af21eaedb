"""How Kafka's brokers and this process know each other: TLS, SASL with a password, mutual TLS, OAuth tokens.

Invariant: a combination that cannot work stops the start with exit code 78 and the name of the variable to correct, not
a client that tries again for ever. No value is ever shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from .endpoints import is_loopback
from .settings_source import Settings

# librdkafka's names; its second ones are aliases.
_OF_PASSWORDS = ("sasl.username", "sasl.password")
_OF_OAUTH = {
    "sasl.oauthbearer.token.endpoint.url": "KAFKA_OAUTH_TOKEN_URL",
    "sasl.oauthbearer.client.id": "KAFKA_OAUTH_CLIENT_ID",
    "sasl.oauthbearer.client.secret": "KAFKA_OAUTH_CLIENT_SECRET",
}
_OWN_WAYS = ("sasl.oauthbearer.config", "sasl.oauthbearer.assertion.", "sasl.oauthbearer.metadata.")


class KafkaCredentialSettings(Settings):
    """How Kafka's brokers know us, and we them."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        alias="KAFKA_SECURITY_PROTOCOL",
        description="Protocol to the brokers. SSL: TLS, with a client certificate also mutual TLS. SASL_SSL: TLS and a "
        "user, docs/how-to/secure.md.",
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        default=None, alias="KAFKA_SASL_MECHANISM", description="SASL mechanism; needed with a SASL protocol."
    )
    sasl_username: str | None = Field(
        default=None, alias="KAFKA_SASL_USERNAME", description="SASL user name, of PLAIN and SCRAM."
    )
    sasl_password: SecretStr | None = Field(
        default=None, alias="KAFKA_SASL_PASSWORD", description="SASL password, of PLAIN and SCRAM."
    )
    ssl_ca_location: str | None = Field(
        default=None,
        alias="KAFKA_SSL_CA_LOCATION",
        description="PEM file of the authorities that sign the brokers' certificates. Default: the system's.",
    )
    ssl_certificate_location: str | None = Field(
        default=None,
        alias="KAFKA_SSL_CERTIFICATE_LOCATION",
        description="PEM file of this client's certificate with its chain, for mutual TLS.",
    )
    ssl_key_location: str | None = Field(
        default=None, alias="KAFKA_SSL_KEY_LOCATION", description="PEM file of this client's private key."
    )
    ssl_key_password: SecretStr | None = Field(
        default=None, alias="KAFKA_SSL_KEY_PASSWORD", description="Password of that key, if it has one."
    )
    oauth_token_url: str | None = Field(
        default=None,
        alias="KAFKA_OAUTH_TOKEN_URL",
        description="Token endpoint (OpenID Connect, client credentials) of OAUTHBEARER; https.",
    )
    oauth_client_id: str | None = Field(default=None, alias="KAFKA_OAUTH_CLIENT_ID", description="Client id there.")
    oauth_client_secret: SecretStr | None = Field(
        default=None, alias="KAFKA_OAUTH_CLIENT_SECRET", description="Client secret there."
    )
    oauth_scope: str | None = Field(
        default=None, alias="KAFKA_OAUTH_SCOPE", description="Scope to ask for, if the endpoint needs one."
    )
    oauth_ca_location: str | None = Field(
        default=None,
        alias="KAFKA_OAUTH_CA_LOCATION",
        description="PEM file of the authorities of the token endpoint. Default: the system's.",
    )

    @property
    def principal(self) -> str:
        """The name that brokers give this process by default, for messages; never a secret."""
        if self.sasl_mechanism == "OAUTHBEARER":
            return f"the subject of the token of client {self.oauth_client_id or 'KAFKA_OAUTH_CLIENT_ID'}"
        if self.security_protocol.startswith("SASL"):
            return f"User:{self.sasl_username}"
        if self.security_protocol == "SSL" and self.ssl_certificate_location:
            return "the subject of the certificate in KAFKA_SSL_CERTIFICATE_LOCATION"
        return "User:ANONYMOUS"

    def check_credentials(self, extra: dict[str, Any]) -> None:
        """Refuse what cannot work.

        Args:
            extra: further librdkafka settings, which may hold what a variable lacks.

        Raises:
            ValueError: ``VARIABLE: rule``.
        """
        config = self.credential_config() | extra
        self._check_sasl(config)
        self._check_tls(config)

    def credential_config(self) -> dict[str, Any]:
        """Return librdkafka's settings of these variables."""
        shared = {
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": _shown(self.sasl_password),
            "ssl.ca.location": self.ssl_ca_location,
            "ssl.certificate.location": self.ssl_certificate_location,
            "ssl.key.location": self.ssl_key_location,
            "ssl.key.password": _shown(self.ssl_key_password),
            "sasl.oauthbearer.method": "oidc" if self.oauth_token_url else None,
            "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
            "sasl.oauthbearer.client.id": self.oauth_client_id,
            "sasl.oauthbearer.client.secret": _shown(self.oauth_client_secret),
            "sasl.oauthbearer.scope": self.oauth_scope,
            "https.ca.location": self.oauth_ca_location,
        }
        return {key: value for key, value in shared.items() if value is not None}

    def _check_sasl(self, config: dict[str, Any]) -> None:
        is_sasl = str(config["security.protocol"]).upper().startswith("SASL")
        mechanism = str(config.get("sasl.mechanism") or config.get("sasl.mechanisms") or "")
        if is_sasl and not mechanism:
            raise ValueError("KAFKA_SASL_MECHANISM: must be set with a SASL protocol")
        if mechanism and not is_sasl:
            raise ValueError("KAFKA_SECURITY_PROTOCOL: must be SASL_SSL or SASL_PLAINTEXT with KAFKA_SASL_MECHANISM")
        is_oauth = mechanism == "OAUTHBEARER"
        for variable, value in (
            ("KAFKA_SASL_USERNAME", self.sasl_username),
            ("KAFKA_SASL_PASSWORD", self.sasl_password),
        ):
            if value and (is_oauth or not is_sasl):
                raise ValueError(f"{variable}: has no meaning without KAFKA_SASL_MECHANISM PLAIN or SCRAM-SHA-...")
        if self.oauth_token_url and not is_oauth:
            raise ValueError("KAFKA_OAUTH_TOKEN_URL: has no meaning without KAFKA_SASL_MECHANISM=OAUTHBEARER")
        if is_oauth:
            self._check_oauth(config)
        elif is_sasl:
            for name in _OF_PASSWORDS:
                if not config.get(name) and mechanism in {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}:
                    raise ValueError(f"KAFKA_{name.upper().replace('.', '_')}: must be set with {mechanism}")

    def _check_oauth(self, config: dict[str, Any]) -> None:
        if not any(name.startswith(_OWN_WAYS) for name in config):  # else KAFKA_EXTRA has a way of its own
            for name, variable in _OF_OAUTH.items():
                if not config.get(name):
                    raise ValueError(f"{variable}: must be set with OAUTHBEARER")
        if self.oauth_token_url:
            url = urlsplit(self.oauth_token_url)
            if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname or "")):
                raise ValueError("KAFKA_OAUTH_TOKEN_URL: must be https://..., for the client secret goes there")

    def _check_tls(self, config: dict[str, Any]) -> None:
        is_tls = str(config["security.protocol"]).upper().endswith("SSL")
        files = {
            "KAFKA_SSL_CA_LOCATION": self.ssl_ca_location,
            "KAFKA_SSL_CERTIFICATE_LOCATION": self.ssl_certificate_location,
            "KAFKA_SSL_KEY_LOCATION": self.ssl_key_location,
        }
        for variable, path in files.items():
            if path and not is_tls:
                raise ValueError(f"{variable}: has no meaning unless KAFKA_SECURITY_PROTOCOL is SSL or SASL_SSL")
        for variable, path in (*files.items(), ("KAFKA_OAUTH_CA_LOCATION", self.oauth_ca_location)):
            if path and (reason := _unreadable(Path(path), is_folder_fine=variable.endswith("CA_LOCATION"))):
                raise ValueError(f"{variable}: {reason}")
        if files["KAFKA_SSL_CERTIFICATE_LOCATION"] and not any(name.startswith("ssl.key") for name in config):
            raise ValueError("KAFKA_SSL_KEY_LOCATION: must be set with KAFKA_SSL_CERTIFICATE_LOCATION")
        if files["KAFKA_SSL_KEY_LOCATION"] and not any(name.startswith("ssl.certificate") for name in config):
            raise ValueError("KAFKA_SSL_CERTIFICATE_LOCATION: must be set with KAFKA_SSL_KEY_LOCATION")


def _shown(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _unreadable(path: Path, *, is_folder_fine: bool) -> str | None:
    """Return why a file of certificates or keys cannot be used, or None."""
    if is_folder_fine and (path.is_dir() or str(path) == "probe"):  # both are librdkafka's
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"the file cannot be read ({type(error).__name__})"
    return None if b"-----BEGIN " in content else "the file holds no PEM"
