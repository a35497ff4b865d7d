"""Which tests run in which guests."""
SUITES = {"ci": (), "full": ()}
