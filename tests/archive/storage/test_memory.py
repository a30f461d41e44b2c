# SPDX-License-Identifier: Apache-2.0
import pytest

from archive.storage.memory import MemoryStorage
from tests.contracts.storage import StorageContract


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> MemoryStorage:
        return MemoryStorage()
