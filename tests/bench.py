"""The bench for nodes in this process, under the name the tests know it by."""

from muon_ad_nodes.bench import Bench as Bench
