from tests.support.fixtures import IN_SESSION_LOOP
pytestmark = IN_SESSION_LOOP
async def test_a(ca, account):
    o = await account.order(ca.name())
    chain = await o.issue(ca.web)
    print(chain)
    print(ca.log.entries[-3:])
async def test_b(new_ca):
    async with new_ca() as ca:
        a = await ca.account()
        o = await a.order(ca.name(), ca.name())
        chain = await o.issue(ca.web)
async def test_c(new_ca):
    async with new_ca() as ca:
        a = await ca.account()
