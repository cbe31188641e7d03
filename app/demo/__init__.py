"""The studies of `codweb demo`: made from formulas, so that a server can be tried without anybody's images.

    identity.py    which studies and series there are, their UIDs, and the attributes that every instance shares
    codes.py       coded entries
    noise.py       smooth noise
    phantom.py     a head as a map of tissues in millimetres
    volumes.py     CT and MR of that head: single frames, and one enhanced multi-frame
    cine.py        an ultrasound sector with a beating chamber: multi-frame, RLE
    slide.py       a stained slide: three levels of JPEG tiles
    tissue.py      the picture on that slide
    documents.py   a structured report about the CT, and a PDF
    contents.py    all of it, series by series
    build.py       the demo as a datastore, by way of ingest

UIDs are the same wherever it is made, so a datastore can be recognised as the demo. Nothing in it comes from a person.
"""
