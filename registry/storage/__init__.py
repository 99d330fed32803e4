"""The storage behind the gate: CNCF Distribution, its daemon, and its folder."""
