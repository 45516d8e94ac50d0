"""The service, over a real socket, and a fake endpoint to forward to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from laps.service.app import Service
from laps.service.config import load_config
from service.fake_openai import FakeOpenAI


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service(load_config(flags={"listen": "127.0.0.1:0"})) as running:
        yield running


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as endpoint:
        yield endpoint
