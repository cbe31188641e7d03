"""The pixels themselves: decoded to samples, encoded anew without loss, shown in thumbnails.

Nothing that serves frames comes by here: they are sent as they are stored.
"""
