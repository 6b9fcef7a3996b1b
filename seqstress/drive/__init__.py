"""Runs plans on streams: pacing, deadlines, judging, recording. Knows gevent, not Locust."""
