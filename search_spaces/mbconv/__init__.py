"""MobileNets: one space of inverted bottlenecks, and the papers' spaces and networks in it."""

from search_spaces.mbconv.configurations import fbnet as fbnet
from search_spaces.mbconv.configurations import mnasnet as mnasnet
from search_spaces.mbconv.configurations import ofa_mobilenet_v3 as ofa_mobilenet_v3
from search_spaces.mbconv.configurations import ofa_proxylessnas as ofa_proxylessnas
from search_spaces.mbconv.configurations import proxylessnas as proxylessnas
from search_spaces.mbconv.configurations import slimmable_mobilenet_v2 as slimmable_mobilenet_v2
from search_spaces.mbconv.operations import Squeeze as Squeeze
from search_spaces.mbconv.space import MBConv as MBConv
from search_spaces.mbconv.stage import Stage as Stage
