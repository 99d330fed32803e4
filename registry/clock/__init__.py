"""The clock: how long it takes from a vulnerability that is found to an image without it in use.

`sightings` is what scans said of packages over time, `journal` where that is kept, `facts` what the
index and the ledger say, `remediation` the stages that follow from them for each image line,
`telling` the numbers. `run.clock_of` is the one function for callers:

    clock_of(index, folder, entries, rules, now, *, looks=()) -> Clock

It asks no registry and writes nothing when nothing is new. On the command line
`builder.cli.clock.perform(workshop=None, *, policy=None, metrics=None) -> Clock` calls it with what this
state directory has, and writes the metrics; a night calls that at its end, after the promotions. It
needs an index, which a rescan leaves behind.
"""
