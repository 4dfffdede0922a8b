"""Why a prediction came out as it did: where the evidence lies in each view, and what each view contributes.

    maps = grad_cam(model, ["view_a", "view_b"], lambda: model(a, b), output(0))      name -> (batch, h', w')
    maps = scaled_together({name: values[0] for name, values in maps.items()})         of the first sample, 0..1
    heat = place(maps["view_a"], letterboxed(source=(2048, 1800), size=(224, 224)))    (2048, 1800)
    write_overlay("view_a.png", pixels, heat)

Nothing here knows a model or a task: a model is a callable, its inner maps are modules by name.
"""
