"""A part of an answer that cannot be read is said, and takes no other part with it."""

import asyncio

import pytest

from bandit.errors import RemoteError

pytest.importorskip("mcp", reason="the extra mcp is not installed: pip install 'journey-bandit[mcp]'")

from mcp.server.mcpserver.exceptions import ToolError

from journey_bandit.assistants.mcp import AssistantServer
from journey_bandit.assistants.read_tools import ReadTools
from journey_bandit.service.service_client import AdminClient

POLICY = {"stage": "cart", "release": None, "holdout": None}
RELEASE = {
    "stage": "cart", "number": 1, "judge": True, "kind": "promote", "version": "3", "approved_by": "ana",
    "approved_at": "2026-01-01T00:00:00Z", "reason": "r",
}  # fmt: skip


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("", name="mlflow"), "mlflow is not installed: pip install 'journey-bandit[mcp,experim"),
        (RemoteError("no | answer"), 'cannot be read: "no \\u007c answer".'),
        (OSError("disk"), 'cannot be read: "disk".'),
    ],
)
def test_a_review_says_which_parts_failed(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> str:
        raise error

    monkeypatch.setattr(AdminClient, "declared", lambda _: {"app": "shop", "currency": "EUR"})
    monkeypatch.setattr(AdminClient, "policies", lambda _: [POLICY])
    monkeypatch.setattr(AdminClient, "release_history", lambda _: [RELEASE])
    monkeypatch.setattr(ReadTools, "_judged", fails)
    monkeypatch.setattr(ReadTools, "_versions", fails)
    text = ReadTools("http://127.0.0.1:1", "", "ledger.db", "http://127.0.0.1:2").review("cart")
    assert text.count(said) == 2
    assert '| 1 | judged candidate | "3" | "ana" |' in text


def test_a_tool_whose_package_is_missing_says_what_to_install() -> None:
    server = AssistantServer("test")

    def approve() -> str:
        raise ModuleNotFoundError("", name="mlflow")

    server.add_tool(approve)
    with pytest.raises(ToolError, match=r"^approve: mlflow is not installed: pip install 'journey-bandit\[mcp,exp"):
        asyncio.run(server.call_tool("approve", {}))
