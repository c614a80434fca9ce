"""A tree of XML, parsed and searched."""
import xml.etree.ElementTree as tree
from load import run

TEXT = "<all>%s</all>" % "".join(
    '<item id="%d"><name>name %d</name><v>%d</v></item>' % (i, i, i) for i in range(10000))


def step(number):
    root = tree.fromstring(TEXT)
    assert sum(int(v.text) for v in root.iter("v")) == 49995000


run(step)
