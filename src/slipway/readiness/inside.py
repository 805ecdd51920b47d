"""`slipway check`: look at the settings, and at everything that a server with them would need."""

import time

from slipway.readiness import (
    knowledge_rows,
    machine_rows,
    model_rows,
    settings_rows,
    store_rows,
)
from slipway.readiness.deployment import DeploymentToCheck
from slipway.readiness.rows import Readiness, made, run_checks


async def check_deployment(deployment: DeploymentToCheck) -> Readiness:
    """Return how ready a deployment is. All checks run concurrently, each within its time."""
    began_at = time.monotonic()
    table = {
        **settings_rows.checks(deployment),
        **model_rows.checks(deployment),
        **knowledge_rows.checks(deployment),
        **store_rows.checks(deployment),
        **machine_rows.checks(deployment),
    }
    return made(deployment.name, began_at, await run_checks(table))
