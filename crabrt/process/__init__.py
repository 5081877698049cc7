"""Processes: which ones belong to a run, what they hold, and how they come to rest and come back.

* `custody`: what a run has alive, from its first turn to its last: the way in for those above. On
  `family`, `claims`, `outsiders` and `subreaper` (whose a process is), `sighting` and `table` (who
  lives, and who ran), `imaging` (which trees need an image, and one instant for all), `standstill`
  where there is none, `spool`, and `shells` (the loop's own).
* `unseen`: stops that no parent sees, by `tracing`: a process made to do a system call.
* `criu`: images of process trees, taken, proved and restored by CRIU; `state`: as they are stored.
* `parking` (trees stand still, and end), `unpacking` and `reviving` (they come back), `revivals`
  (what became of them), `obstacles` (what is in their way); `orphans`: what dead runs left, and
  `aftermath`: until what they had begun is over.
* `beside`: those of a fork, while the original's go on.
* `namespaces`: those that shells and forks get.
* `shell`: a bash session for agents, and what is left of one where no image can be had.

What a run makes of that (verdicts, checkpoints, restores) is decided above.
May import: ``workspace``, ``journal``, ``store``, ``core``, ``errors``.
"""
