"""Importers: models of other frameworks to Relax with `bitenc.quantize`."""
