# %% [markdown]
# # Which channel gets how much?
#
# All models over a file of finished journeys. Open it as a notebook (VS Code, Jupytext), or run it:
# `python examples/analysis.py`.

# %%
from __future__ import annotations

from attributary import TableError, analyze

# %% [markdown]
# A row per path: channels in order, how often it converted, for how much, and how often it did not.

# %%
journeys = {
    "path": ["search", "social > search", "display > social > search", "email", "display > email", "display", "social"],
    "total_conversions": [90, 60, 25, 80, 30, 2, 6],
    "total_conversion_value": [4500.0, 3600.0, 1750.0, 3200.0, 1500.0, 80.0, 300.0],
    "total_null": [400, 200, 150, 150, 170, 900, 500],
}
result = analyze(journeys)
print(result)

# %% [markdown]
# How sure are the shares? Intervals come from the data alone; how far the models are apart is the other doubt.

# %%
print(analyze(journeys, models=["linear", "markov", "shapley"], intervals=True))

# %% [markdown]
# As rows, for a data frame or a spreadsheet.

# %%
for row in result.rows():
    if row["model"] == "markov":
        print(row["channel"], round(row["conversions"], 1))

# %% [markdown]
# A table that breaks a rule is refused with its row, its column and the rule.

# %%
try:
    analyze({"path": ["search > mail"], "total_conversions": [-1]})
except TableError as error:
    print(error)
