"""Why a prediction came out as it did: where the evidence lies in each view, and what each view contributes.

with torch.enable_grad():
    maps = grad_cam(model, model.taps, lambda: model(a, b), output(0))     name -> (batch, h', w')
heat = place(maps["view_a"][0], letterboxed(source=(2048, 1800), size=(224, 224)))
write_panel("cam.png", {"a": picture}, {"a": {"view": heat}})

Nothing here knows a model or a task: a model is a callable, its inner maps are modules by name.
"""
