"""Settings of the service: flags over environment over file over defaults."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml  # type: ignore[import-untyped, unused-ignore]
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from laps.engine.types import PolicySpec
from laps.policies.base import PolicyError
from laps.policies.registry import build_policy

ENV_PREFIX = "LAPS_SERVE_"


class ConfigError(ValueError):
    """The settings are not usable; the message says which and why."""


class ServiceConfig(BaseSettings):
    """What `laps serve` can be told. `load_config` reads it from all places."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    listen: str = "127.0.0.1:50070"
    """host:port to serve on; port 0 takes any free one."""
    allow_remote: bool = False
    """Permit an address that other machines can reach. There is no authentication yet."""
    policy: str = "laps-sd"
    """Policy of all workers until an operator sets another one."""
    parameters: dict[str, float | int | str | bool] = {}
    """Parameters of the policy that differ from its defaults."""
    plan_ttl_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.5
    """A worker that gets no plan for its newest report for so long decides for itself. Seconds."""
    grace_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 10.0
    """How long a stop waits for answers that are being streamed. Seconds."""
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("listen")
    @classmethod
    def _has_host_and_port(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"must be host:port, such as 127.0.0.1:50070, not {listen!r}")
        return listen

    @model_validator(mode="after")
    def _keeps_to_this_machine(self) -> ServiceConfig:
        host = self.listen.rpartition(":")[0].strip("[]")
        if not self.allow_remote and not _is_loopback(host):
            raise ValueError(
                f"listening on {self.listen} lets everyone who can reach it steer your workers, as "
                "there is no authentication yet: listen on 127.0.0.1, or say --allow-remote "
                "(allow_remote: true) on a network where you trust everyone"
            )
        return self

    @model_validator(mode="after")
    def _policy_exists(self) -> ServiceConfig:
        try:
            build_policy(self.policy_spec)
        except PolicyError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def policy_spec(self) -> PolicySpec:
        """The policy to begin with."""
        return PolicySpec(self.policy, self.parameters)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources, strongest first."""
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls)


def load_config(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> ServiceConfig:
    """Read the settings; `flags` holds those given on the command line, by field name.

    Raises ConfigError with a line for each thing that is wrong.
    """

    class Sources(ServiceConfig):
        model_config = SettingsConfigDict(yaml_file=file)

    if file is not None and not file.is_file():
        raise ConfigError(f"there is no configuration file {file}")
    try:
        return Sources(**(flags or {}))
    except ValidationError as error:
        raise ConfigError("\n".join(map(_describe, error.errors()))) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from None
    # The sources raise SettingsError (a ValueError) for text that is not the JSON they expect,
    # TypeError for a YAML file that holds no mapping, OSError for one that cannot be read.
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"the settings cannot be read: {error}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _describe(fault: Any) -> str:
    """Return one line for a fault that pydantic found, naming the setting."""
    name = ".".join(map(str, fault["loc"]))
    message = fault["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
