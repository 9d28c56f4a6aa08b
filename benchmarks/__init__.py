"""What a client costs the process that runs it: `python -m benchmarks` prints one table.

Every contender talks to the same cheap server (`load_server`) on another core, each measurement
in a fresh process (`worker`), all contenders in turn within each round. `questions` says what is
measured, `measure` how, `contenders` by whom.
"""
