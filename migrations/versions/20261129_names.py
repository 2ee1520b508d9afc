"""Rename the scope and the alarm of webhooks where they are stored."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rename({"targets": "webhooks"}, {"forwarding_behind": "webhooks_behind"})


def downgrade() -> None:
    _rename({"webhooks": "targets"}, {"webhooks_behind": "forwarding_behind"})


def _rename(scopes: dict[str, str], alarms: dict[str, str]) -> None:
    json, text = ("::json", "::text") if op.get_bind().dialect.name == "postgresql" else ("", "")
    for old, new in scopes.items():
        scopes_now = f"replace(scopes{text}, '\"{old}\"', '\"{new}\"')"
        op.execute(f"UPDATE api_keys SET scopes = ({scopes_now}){json} WHERE scopes{text} LIKE '%\"{old}\"%'")  # noqa: S608
    for old, new in alarms.items():
        op.execute(f"UPDATE incidents SET alarm = '{new}' WHERE alarm = '{old}'")  # noqa: S608
