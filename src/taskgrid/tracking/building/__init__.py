"""From results to run records: what is logged, under which names. Pure; no registry is involved.

Names that a person meets in the registry:

- ``curve/...`` is a curve, of which tables and bars show the last point alone. Of a merge over lambda, at
  step ``scale_step(scale)``: ``curve/val/mean_accuracy``, ``curve/val/mean_normalized``,
  ``curve/val/accuracy/<task>``, and ``curve/lambda`` for an axis; the same under ``curve/test/`` where the
  configuration asks for test curves. Points whose tasks have coefficients of their own lie on none. Of a
  training over its steps: ``curve/train/loss``, ``curve/train/lr``, ``curve/val/accuracy``;
- ``chosen/...`` is the point that was chosen on validation for a merge: ``chosen/test_accuracy`` with
  ``_low`` and ``_high``, ``chosen/test_normalized``, ``chosen/val_normalized``, ...; single tasks under
  ``chosen_tasks/test_accuracy/``, ``_low/`` and ``_high/``. Beside it ``lambda`` and ``size``, the number of
  merged tasks. For a study other than ``addition`` the study's name stands in place of ``chosen``, with what
  it is about behind it where it asks several questions, and ``scale`` is its coefficient;
- ``accuracy/...`` is what an expert does: ``accuracy/test`` with ``_low`` and ``_high``, ``accuracy/val``,
  ``accuracy/val_start`` before training, ``accuracy/zeroshot_test``.

Pages that compare runs draw the first parameter by the alphabet against the first metric: names are such that
these are lambda, or the number of merged tasks, and the chosen point's accuracy on test.
"""
