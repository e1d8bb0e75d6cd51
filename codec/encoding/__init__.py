"""How a frame is made: what was asked for, where the tensor comes from, which layout it takes, and the writing.

    request -> source -> counts -> plan (a layout, by predicted size) -> its streams -> entropy stage -> frame

request.py says what a caller asked for, sources.py where a tensor comes from, choose.py which layout it takes,
predict.py how large that will be, pack.py writes it.
"""
