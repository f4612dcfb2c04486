"""Planners: one per file, each chooses actions by optimising through a world model.

A new one is a class in this folder (or in a plugin) with `@register("planner", "name")`, its `Config` of
`settings` and a `search`; `planning.base.BasePlanner` does the rest.
"""
