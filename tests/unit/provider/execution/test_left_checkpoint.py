from __future__ import annotations

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider.execution.left_checkpoint import LeftCheckpoint
from llutil.task_link.job_events import Saved


def test_the_assets_of_a_task_are_told_of_the_checkpoint_that_its_job_has_left():
    weights, alias = Asset("weights"), AssetAlias("all")
    context = {"outlet_events": OutletEventAccessors()}
    context["outlet_events"][weights].extra["by"] = "me"
    left = LeftCheckpoint()
    left.tell(context, [weights])
    assert context["outlet_events"][weights].extra == {"by": "me"}
    left.hear(Saved(7))
    left.hear(Saved(9, path="s3://bucket/job/step-9-0123456789ab"))
    left.tell(context, [weights, alias, "no asset"])
    assert context["outlet_events"][weights].extra == {
        "by": "me",
        "checkpoint_step": 9,
        "checkpoint_path": "s3://bucket/job/step-9-0123456789ab",
    }
    assert not context["outlet_events"][alias].extra
    assert not context["outlet_events"][alias].asset_alias_events
