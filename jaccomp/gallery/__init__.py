"""The gallery: derivation cards as HTML that needs no network, one page alone or a site of them with an index.

    page(card) -> text                          one file that stands alone
    site(title, contents) -> {file: text}       an index and a page a layer
    publish(files, directory)                   into a folder, each file whole or not at all

A page carries its style and its scripts, each allowed by its hash and nothing else is; what a layer's author chose,
names and docs and formulas, is text wherever it stands.
"""
