"""Entry point (group `sglang.srt.plugins`): off unless asked for, and never half on.

SGLang calls `activate` in every process that loads plugins, and only logs what it raises. So what
must stop a server raises SystemExit, before there is a model.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from laps import wire
from laps.engine.types import Capacity, PolicySpec
from laps.policies.base import PolicyError
from laps.policies.registry import build_policy
from laps_sglang.compat import (
    Engine,
    UnsupportedEngineError,
    captured_batch_sizes,
    check_version,
    installed_engine,
    resolved_settings,
    unapplied,
)
from laps_sglang.hooks import Hooks
from laps_sglang.lengths.prompts import PromptLog
from laps_sglang.lengths.state import LengthModelError
from laps_sglang.lengths.state import check as check_length_model
from laps_sglang.modes import refuse_unsupported, refuse_unsupported_model
from laps_sglang.planner import PlannerProcess, Setup
from laps_sglang.settings import Settings, SettingsError, add_flags, read_settings
from laps_sglang.worker import Worker

logger = logging.getLogger(__name__)


def activate() -> None:
    """Register the flags and, in a scheduler process that was asked for it, the hooks."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    arguments = "sglang.srt.server_args.ServerArgs"
    HookRegistry.register(f"{arguments}.add_cli_args", add_flags, HookType.AFTER)
    HookRegistry.register(f"{arguments}.from_cli_args", check_flags, HookType.BEFORE)
    # Only SGLang's scheduler processes have loaded the scheduler before they load plugins.
    if "sglang.srt.managers.scheduler" not in sys.modules:
        return
    with _refusing():
        settings = read_settings()
        if settings is not None:
            install(settings, installed_engine())


def check_flags(cls: type, arguments: argparse.Namespace) -> None:
    """BEFORE hook on `ServerArgs.from_cli_args`: refuse in the launching process what it can know.

    The scheduler processes check again, with what SGLang made of the flags.
    """
    with _refusing():
        settings = read_settings()
        if settings is not None:
            check_version()
            build_policy(PolicySpec(settings.policy))
            if settings.length_model is not None:
                check_length_model(settings.length_model)
            refuse_unsupported(vars(arguments), settings.max_running)


@contextmanager
def _refusing() -> Iterator[None]:
    """End the process with one sentence in place of a traceback."""
    try:
        yield
    except (SettingsError, UnsupportedEngineError, PolicyError, LengthModelError) as error:
        raise SystemExit(f"sglang-laps refuses to start: {error}") from error


def install(settings: Settings, engine: Engine) -> Hooks:
    """Register every hook; SGLang applies them when all plugins are loaded."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    policy = PolicySpec(settings.policy)
    build_policy(policy)  # Refuses an unknown name now rather than at the first request.
    if settings.length_model is not None:
        check_length_model(settings.length_model)

    def check() -> None:
        if unhooked := unapplied(target for target, _, _ in hooks.table()):
            raise UnsupportedEngineError(f"SGLang did not apply the hooks on {', '.join(unhooked)}")
        refuse_unsupported(resolved_settings(), settings.max_running)

    def attach(scheduler: Any) -> Worker:
        refuse_unsupported_model(scheduler)
        sizes = captured_batch_sizes(resolved_settings(), scheduler.max_running_requests)
        worker = Worker(scheduler, engine, settings.max_running, sizes)
        if engine.is_entry_rank(scheduler):
            advise(worker.capacity)
            replica = engine.dp_rank(scheduler)
            setup = Setup(
                identify(resolved_settings(), replica),
                policy,
                settings.endpoint,
                length_model=settings.length_model,
                saves_length_model=replica == 0,
            )
            if settings.length_model is not None:
                worker.ledger.prompts = PromptLog()
            worker.planner = PlannerProcess(setup, worker.snapshot, worker.ledger.prompts)
        return worker

    hooks = Hooks(engine, check, attach)
    for target, kind, function in hooks.table():
        HookRegistry.register(target, function, HookType(kind))
    return hooks


def advise(capacity: Capacity) -> None:
    """Say in the log what makes the plugin worth little, though it works."""
    if capacity.max_resident == capacity.max_running:
        logger.warning(
            "laps: as many requests may run as may be resident (%d), so who pauses for another one "
            "gives up its KV cache: raise --max-running-requests, to 16 times as many, say",
            capacity.max_running,
        )


def identify(settings: dict[str, Any], dp_rank: int) -> wire.WorkerIdentity:
    """Return who this scheduler process is to a service; `settings` are SGLang's, resolved."""
    node, port = os.uname().nodename, settings["port"]
    host = node if settings["host"] in ("0.0.0.0", "::") else settings["host"]
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    scheme = "https" if settings.get("ssl_certfile") else "http"
    drafts = settings.get("speculative_num_draft_tokens") or 0
    return wire.WorkerIdentity(
        worker_id=f"{node}:{port}/dp{dp_rank}",
        incarnation=time.time_ns(),
        model=settings.get("served_model_name") or settings["model_path"],
        http_url=f"{scheme}://{authority}",
        sglang_version=version("sglang"),
        algorithm=settings.get("speculative_algorithm") or "",
        draft_tokens=max(0, drafts - 1),
    )
