"""Spend beside credit: what an import changes, which campaign a touchpoint means, rates, ratios with intervals."""
