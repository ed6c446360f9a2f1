"""The store on a real S3 API: conditional writes, throttling, lost answers."""

import pytest
from s3_server import RESET

from cuvee.tasks.store.objects import ObjectFolder

def test_x(s3, s3_server):
    o = ObjectFolder(s3+"/store")
    for i in range(2): print(o.create("a/b", b"%d"%i))
    n=[0]
    def f(m,p):
        n[0]+=1
        return None if n[0]>3 else 503
    import time
    for st in (503,429,RESET,409):
        for after in (False,True):
            n[0]=0
            t=time.time()
            with s3_server.failing(lambda m,p: st if f(m,p) else None, after=after):
                try: print(st, after, o.create(f"c{st}{after}", b"x"), end=" ")
                except Exception as e: print(repr(e), end=" ")
            print(n[0], time.time()-t)
    n[0]=-10**6
    t=time.time()
    for st in (503,429,RESET,409):
        t=time.time(); n[0]=-10**6
        with s3_server.failing(lambda m,p: st if f(m,p) else None):
            try: o.read("a/b")
            except Exception as e: print(st, repr(e), n[0]+10**6, time.time()-t)
    assert 0
