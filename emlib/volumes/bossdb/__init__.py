"""BossDB: public EM volumes over the network, through the `intern` client.

1. connect      host and token from a file or the environment; each request has a deadline and a few tries
2. describe     three small requests: the channel, its experiment, its coordinate frame
3. read         the blocks of the cutout that are not in the cache yet, and no other
"""

from emlib.volumes.bossdb.channel import open_bossdb
from emlib.volumes.bossdb.errors import NetworkUnreachable
from emlib.volumes.bossdb.listing import list_bossdb, listing_lines
from emlib.volumes.bossdb.options import BossOptions
from emlib.volumes.bossdb.uri import DEFAULT_URI, BossUri, parse_uri

__all__ = [
    "DEFAULT_URI",
    "BossOptions",
    "BossUri",
    "NetworkUnreachable",
    "list_bossdb",
    "listing_lines",
    "open_bossdb",
    "parse_uri",
]
