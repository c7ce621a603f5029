"""The four models, each behind one small interface: VLM, VDM, CLIP and the FVD detector."""
