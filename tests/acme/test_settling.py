"""A validation whose record the database refuses: told in the log, and made again when it falls due."""

import asyncio

from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP


async def test_a_record_that_is_refused_leaves_the_challenge_processing(new_ca):
    async with new_ca() as ca:
        account = await ca.account()
        order = await account.order(ca.name())
        challenge = await order.challenge()
        ca.web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))
        await ca.sql("ALTER TABLE validation ADD CONSTRAINT none CHECK (false)")
        answer = await account.post(challenge["url"], {})
        assert (answer.status, answer.json["status"]) == (200, "processing")
        for _ in range(500):  # the answer does not wait for long
            if told := ca.logged("validation not recorded"):
                break
            await asyncio.sleep(0.02)
        (failure,) = told
        assert "CheckViolationError" in failure["exception"]
        assert await ca.sql("SELECT attempt_due IS NOT NULL FROM authz") is True
