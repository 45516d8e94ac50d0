"""The service, over a real socket, a client of it, and a worker with a fake endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from laps.client import LapsClient
from laps.service.app import Service
from laps.service.config import load_config
from service.fake_openai import FakeOpenAI
from service.fake_worker import FakeWorker
from testbed.launch import ReservedPort


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with Service(load_config(flags={"listen": "127.0.0.1:0"})) as running:
        yield running


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nobody listens."""
    reserved = ReservedPort()
    yield f"127.0.0.1:{reserved.number}"
    reserved.release()


@pytest.fixture
async def openai() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as endpoint:
        yield endpoint


@pytest.fixture
async def worker(service: Service, openai: FakeOpenAI) -> AsyncIterator[FakeWorker]:
    async with FakeWorker(service.address, http_url=openai.url) as attached:
        await attached.attach()
        yield attached


@pytest.fixture
async def client(service: Service) -> AsyncIterator[LapsClient]:
    async with LapsClient(service.address) as connected:
        yield connected
