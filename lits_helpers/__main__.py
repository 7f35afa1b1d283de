"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time

from tqdm import tqdm

from .files import DataError, collected_error, shown
from .recipes import RECIPES
from .settings import PROFILES, Settings, load_settings


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text}")
    return minutes


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, got {text}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lits_helpers",
        description="Liver-tumour segmentation on CT slices. Not a medical device.",
        epilog="Without --data (or LITS_DATA_ROOT) everything runs on a synthetic phantom.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str, *, skips: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=words, description=words)
        sub.add_argument(
            "--data", metavar="FOLDER", help="folder with LiTS in any layout; it is only read"
        )
        sub.add_argument(
            "--layout", metavar="NAME", help="which layout is meant where the folder holds several"
        )
        sub.add_argument(
            "--mask-meaning", metavar="WORDS",
            help="what masks of two levels outline: liver, tumour, or 'liver and tumour'",
        )
        sub.add_argument(
            "--output", metavar="FOLDER", help="folder that gets everything written (outputs/)"
        )
        sub.add_argument(
            "--profile", choices=list(PROFILES), help="tiny: a CPU minute; full: the report's sizes"
        )
        sub.add_argument(
            "--recipe", choices=list(RECIPES), help="; ".join(f"{name}: {one.words}" for name, one in RECIPES.items())
        )
        if skips:
            sub.add_argument(
                "--skip-problems", action="store_true",
                help="leave out unreadable or unpaired files with a warning, instead of stopping",
            )
        return sub

    command("demo", "Run notebooks 01 to 04, write pages and figures, print the results table.")
    command("phantom", "Write the synthetic CT volumes and slices, and say where.")
    command("data", "Say what is below a folder: layouts, volumes, slices, codings, problems.")
    convert = command("convert", "Write CT volumes as slice files, or go on with it.", skips=True)
    convert.add_argument("--jpeg", action="store_true", help="images as JPEG (quality 95) in place of PNG")
    command("index", "Find slices and masks, classify them, print the counts.", skips=True)
    audit = command("audit", "Split, look for leaks by image similarity, and store both.", skips=True)
    train = command("train", "Train the recipe's networks, or go on where an earlier run stopped.", skips=True)
    crossvalidate = command(
        "crossvalidate", "Train and test folds of patients, or go on with it, and score all patients.", skips=True
    )
    crossvalidate.add_argument("--folds", type=_at_least_one, metavar="N", help="3 in profile tiny, 5 in full")
    for sub in (train, crossvalidate):
        sub.add_argument("--epochs", type=_at_least_one, metavar="N", help="instead of the profile's; recipe strong goes by --minutes alone")
        sub.add_argument(
            "--minutes", type=_minutes,
            help="stop after about this time, run again to go on; for recipe strong all the time there is",
        )
    evaluate = command("evaluate", "Score a trained network slice by slice and patient by patient.", skips=True)
    predict = command("predict", "Write tumour masks for a CT, or for all slices or volumes of a folder.")
    predict.add_argument(
        "scans", nargs="*", metavar="SCAN", help="NIfTI files or DICOM folders; else what --data holds"
    )
    predict.add_argument("--series", metavar="UID", default="", help="where a DICOM folder holds several CTs")
    predict.add_argument(
        "--dicom-seg", action="store_true", help="write DICOM segmentation objects beside DICOM scans"
    )
    predict.add_argument(
        "--keep-patient", action="store_true",
        help="copy the patient's name, number, birth date and study from the scan into these objects; else they are empty",
    )
    population = command(
        "population", "Describe tumour burden, lesions and their place over reference labels, or predictions.", skips=True
    )
    population.add_argument(
        "--predictions", metavar="FOLDER",
        help="what `predict` wrote; with --data the liver and slice spacing come from the reference labels there",
    )
    app = command("app", "Serve a reviewer of predictions to a browser on this computer.")
    app.add_argument("--root", metavar="FOLDER", help="nothing outside is read; by default --data, or the phantom")
    app.add_argument("--scan", metavar="PATH", default="", help="shown at first: below the root folder")
    app.add_argument("--model", metavar="FILE", help="as for predict; by default what was trained last")
    app.add_argument("--port", type=_port, default=8866, metavar="N", help="on 127.0.0.1 (8866)")
    export = command("export", "Write a trained network for OpenVINO or as ONNX, and compare the two.")
    export.add_argument("--model", metavar="FILE", required=True, help="a .keras file from training")
    export.add_argument("--format", choices=("openvino", "onnx"), default="openvino")
    for sub in (audit, train, evaluate):
        sub.add_argument(
            "--split", choices=("patient", "slice", "all"),
            help="patient: whole volumes apart; slice: the report's, tumour slices only, which leaks; all: by "
            "patient, none kept for a test, to be tested on other data (default of recipe strong, else patient)",
        )
    evaluate.add_argument(
        "--model", metavar="FILE",
        help="a .keras file or cascade folder, scored on all slices of --data; else the run's own test split",
    )
    evaluate.add_argument(
        "--report", action="store_true", help="write scores, cases, lesions and failures as one HTML page"
    )
    for sub in (evaluate, predict):
        sub.add_argument("--flips", action="store_true", help="average over mirrored slices: four times the work; a cascade always does")
    predict.add_argument(
        "--skip-air", action="store_true", help="leave out slices that show no body; a cascade sees whole volumes"
    )
    predict.add_argument(
        "--model", metavar="FILE", required=True, help="a .keras file or cascade folder from training, or an exported .xml or .onnx"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0, or 2 after an error in data or settings, which it prints."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    chosen = {
        "data_root": options.data, "output_root": options.output, "profile": options.profile,
        "layout": options.layout, "mask_meaning": options.mask_meaning, "recipe": options.recipe,
    }
    if getattr(options, "epochs", None) is not None:
        chosen["epochs"] = options.epochs
    try:
        settings = load_settings(**chosen)
        print(f"{settings}\n")
        COMMANDS[options.command](settings, options)
    except DataError as error:
        tqdm.write(f"error: {error}", file=sys.stderr)  # on a line of its own, whatever bar was moving
        return 2
    return 0


def _demo(settings: Settings, options: argparse.Namespace) -> None:
    from .demo import run_demo

    run_demo(settings)


def _phantom(settings: Settings, options: argparse.Namespace) -> None:
    from .phantom import ensure_phantom

    if not settings.is_synthetic:
        raise DataError("there is real data: leave out --data and unset LITS_DATA_ROOT for the phantom")
    print(f"synthetic volumes and slices: {shown(ensure_phantom(settings))}")


def _data(settings: Settings, options: argparse.Namespace) -> None:
    from .layouts import find_layouts, what_is_here
    from .phantom import ensure_phantom

    root = ensure_phantom(settings)
    layouts = find_layouts(root)
    print(what_is_here(layouts, root, mask_meaning=settings.mask_meaning).to_string(index=False))
    problems = [f"  {layout.name}: {problem}" for layout in layouts for problem in layout.problems]
    print("\n".join([f"\n{len(problems)} problem(s)", *problems[:20]]))
    if len(problems) > 20:
        print(f"  ... and {len(problems) - 20} more")


def _convert(settings: Settings, options: argparse.Namespace) -> None:
    from .conversion import convert_volumes
    from .layouts import choose, find_layouts
    from .phantom import ensure_phantom

    root = ensure_phantom(settings)
    volumes = [found for found in find_layouts(root) if found.kind == "volumes"]
    if not volumes:
        raise DataError(f"{root} holds slices and no volumes: nothing is to be converted, go on with `index`")
    found = choose(volumes, None if settings.is_synthetic else settings.layout)
    folder = settings.output_root / "converted"
    kind = {"ending": ".jpg", "jpeg_quality": 95} if options.jpeg else {}
    table = convert_volumes(
        found.cases, folder, skip_problems=options.skip_problems, problems=found.left_out, **kind
    )
    print(table[["volume", "slices", "height", "width", "spacing_mm", "orientation", "notes"]].to_string(index=False))
    print(f"\n{table.slices.sum():,} slices: {shown(folder)}")


def _index(settings: Settings, options: argparse.Namespace) -> None:
    from .index import count_diagnoses, load_slices

    table = load_slices(settings, skip_problems=options.skip_problems)
    print(count_diagnoses(table))
    print(f"{len(table)} slices of {table.volume.nunique()} volumes")


def _split_kind(settings: Settings, options: argparse.Namespace) -> str:
    return options.split or ("all" if RECIPES[settings.recipe].cascade else "patient")


def _split_table(settings: Settings, options: argparse.Namespace):
    from .audit import load_patient_split
    from .index import load_slices
    from .splits import one_watched, split_slices, without_test

    kind = _split_kind(settings, options)
    if kind != "slice":
        table = load_patient_split(settings, skip_problems=options.skip_problems)
        if kind == "all":  # a cascade stops by the clock; other recipes keep the epoch that validates best
            return one_watched(table) if RECIPES[settings.recipe].cascade else without_test(table)
        return table
    return split_slices(load_slices(settings, skip_problems=options.skip_problems), seed=settings.seed)


def _audit(settings: Settings, options: argparse.Namespace) -> None:
    from .audit import audit_split
    from .splits import save_split

    split = _split_table(settings, options)
    found = audit_split(split)
    stored = save_split(split, settings.output_root / f"split_{_split_kind(settings, options)}.csv", audit=found)
    print(f"{found}\n\nsplit and audit: {shown(stored.with_suffix(''))}*")


def _train(settings: Settings, options: argparse.Namespace) -> None:
    table = _split_table(settings, options)
    if RECIPES[settings.recipe].cascade:
        from .cascade import train_cascade

        print(f"cascade, for --model: {shown(train_cascade(settings, table, minutes=options.minutes))}")
        return
    from .training import train

    folder = train(settings, table, minutes=options.minutes)
    print(f"best network: {shown(folder / 'best.keras')}")


def _crossvalidate(settings: Settings, options: argparse.Namespace) -> None:
    from .audit import load_patients
    from .crossvalidation import patients_of, score_folds
    from .scoring import summary
    from .uncertainty import summarise_runs

    if RECIPES[settings.recipe].cascade:
        raise DataError(
            f"recipe {settings.recipe!r} has no folds: train on some volumes and evaluate on others, or take another"
        )
    table = load_patients(settings, skip_problems=options.skip_problems)
    slices = score_folds(settings, table, folds=options.folds, minutes=options.minutes)
    if slices.empty:
        return
    patients = patients_of(slices)
    tested = f"{len(patients)} of {table.volume.nunique()} volumes tested once"
    print(f"\n{settings.data_label}: folds by patient, {tested}; threshold 0.30, native resolution\n")
    print(summary(slices).round(3).to_string(index=False, na_rep="-"))
    print(f"\n{patients.round(3).to_string(index=False, na_rep='-')}\n")
    print(summarise_runs(dict(list(patients.groupby("fold")))))


def _evaluate(settings: Settings, options: argparse.Namespace) -> None:
    from .cascade import Cascade, cascade_folder
    from .evaluation import evaluate, write_report
    from .export import load_network
    from .generators import decode_slices
    from .index import load_slices
    from .inference import evaluate_slices, predict_slices
    from .masks import THRESHOLD
    from .scoring import patient_scores, summary
    from .training import read_history, run_folder, split_name

    if options.model:
        model = load_network(options.model, settings.image_size)
        table = tested = load_slices(settings, skip_problems=options.skip_problems)
        words = "all slices, whether or not the network was trained on them"
    else:
        table = _split_table(settings, options)
        cascade = RECIPES[settings.recipe].cascade
        stored = cascade_folder(settings, table) if cascade else run_folder(settings, table) / "best.keras"
        model = load_network(stored, settings.image_size)
        tested = table[table.split == "test"]
        words = f"test slices of the {split_name(table)}"
        if tested.empty:
            raise DataError(
                "no patients were kept for a test: name the network with --model and other data with --data, or "
                "train and evaluate with --split patient"
            )
    started = time.perf_counter()
    if isinstance(model, Cascade):
        threshold, probabilities = model.threshold, model.predict_table(tested)
    else:
        threshold = THRESHOLD
        cache = decode_slices(table, settings.image_size, settings.output_root)
        probabilities = predict_slices(model, cache, tested, flips=options.flips)
    seconds = time.perf_counter() - started
    found = evaluate(tested, probabilities, threshold=threshold) if options.report else None
    scores = found.slices if found else evaluate_slices(tested, probabilities, threshold=threshold)
    print(f"\n{settings.data_label}: {words}; threshold {threshold:.2f}, native resolution\n")
    print(summary(scores).round(3).to_string(index=False, na_rep="-"))
    print(f"\n{patient_scores(scores).round(3).to_string(index=False, na_rep='-')}")
    if found:
        page = settings.output_root / "results" / "report.html"
        times = {"prediction": f"{seconds:.1f} s for {len(tested)} slices"}
        if not (options.model or RECIPES[settings.recipe].cascade):
            history = read_history(run_folder(settings, table))
            times["training"] = f"{history.seconds.sum():.0f} s for {len(history)} epochs"
        split = "by slice" if options.split == "slice" else "by patient"
        write_report(page, settings, tested, probabilities, found, tested=words, split=split, times=times)
        print(f"\npage: {shown(page)}")


def _population(settings: Settings, options: argparse.Namespace) -> None:
    from .audit import load_patients
    from .population import predicted_cases, reference_cases, summarised, survey, write_tables
    from .population_plots import write_population

    # Predictions of other scans must not be given the phantom's livers because a number is the same.
    table = None
    if not (options.predictions and settings.is_synthetic):
        table = load_patients(settings, skip_problems=options.skip_problems)
    cases = predicted_cases(options.predictions, table) if options.predictions else reference_cases(table)
    patients = None if table is None else table.groupby("volume").patient.first().to_dict()
    found = survey(cases, patients=patients)
    labels = f"predictions in {shown(options.predictions)}" if options.predictions else f"reference labels of the {settings.data_label}"
    folder = settings.output_root / "results" / "population"
    write_tables(found, folder)
    page = write_population(
        folder / "population.html", found, title=f"Tumours in a data set: {labels}",
        predicted=bool(options.predictions), synthetic=table is not None and settings.is_synthetic,
        small_tumours_unknown=0 if table is None or options.predictions else int((~table.small_tumours_known).sum()),
        facts={"labels": labels, "livers and spacing": "no reference labels" if table is None else settings.data_label},
    )
    shorter = summarised(found)[["quantity", "value", "low", "high", "cases", "patients", "left_out"]]
    print(f"\n{labels}: a data set, not a population\n")
    print(shorter.round(3).to_string(index=False, na_rep="-"))
    print(f"\npage and tables: {shown(page)}, cases.csv, lesions.csv")


def _app(settings: Settings, options: argparse.Namespace) -> None:
    from .app import newest_checkpoint, serve
    from .phantom import ensure_phantom

    model = options.model or newest_checkpoint(settings)
    serve(settings, root=options.root or ensure_phantom(settings), model=model, scan=options.scan, port=options.port)


def _export(settings: Settings, options: argparse.Namespace) -> None:
    from pathlib import Path

    import numpy as np

    from .export import FORMATS, agreement, export_model, load_exported
    from .generators import resize_image
    from .phantom import phantom_volume
    from .training import load_checkpoint
    from .windows import three_channels

    source = Path(options.model).resolve()
    if (source / "cascade.json").exists():
        raise DataError(f"{shown(source)}: a cascade is more than networks and cannot be exported: predict with it as it is")
    model = load_checkpoint(source, settings.image_size)
    name = f"{source.parent.name}-{source.stem}{FORMATS[options.format]}"  # every run has a best.keras
    written = export_model(model, settings.output_root / "exported" / name, format=options.format)
    exported = load_exported(written)
    scan = phantom_volume(settings.seed).hounsfield
    slices = scan[:: max(1, len(scan) // 8)]
    images = np.stack([resize_image(three_channels(slice_), settings.image_size) for slice_ in slices])
    found = agreement(model, exported, images)
    print(
        f"exported network: {shown(written)}, computing in {exported.precision} here\n"
        f"on {len(images)} synthetic slices: probabilities differ by {found['largest_difference']:.4f} at most, "
        f"masks at 0.30 in {found['pixels_that_differ']} of {found['pixels']:,} pixels"
    )


def _predict(settings: Settings, options: argparse.Namespace) -> None:
    from .export import load_network
    from .inference import predict_files, predict_scan, scan_names, shows_body
    from .layouts import choose, find_layouts
    from .phantom import ensure_phantom

    if options.keep_patient and not options.dicom_seg:
        raise DataError("only DICOM segmentations can hold a patient: add --dicom-seg, or leave out --keep-patient")
    model = load_network(options.model, settings.image_size)
    folder = settings.output_root / "predictions"
    chosen = dict(flips=options.flips, wanted=shows_body if options.skip_air else None)
    scans, problems = [(path, options.series) for path in options.scans], []
    if not scans:
        found = choose(find_layouts(ensure_phantom(settings)), settings.layout)
        problems = found.left_out
        if found.kind == "slices":
            print(f"masks and list: {shown(predict_files(model, found.cases, folder, **chosen))}")
        else:
            scans = list(zip(found.cases.image_path, found.cases.image_series))
    chosen |= {"dicom_seg": options.dicom_seg, "keep_patient": options.keep_patient}
    for (path, series), name in zip(scans, scan_names([path for path, _ in scans]), strict=True):
        try:
            print(shown(predict_scan(model, path, folder, series=series, name=name, **chosen)))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise collected_error(problems, advice="The other scans are predicted.")


COMMANDS = {
    "demo": _demo, "phantom": _phantom, "data": _data, "convert": _convert, "index": _index, "audit": _audit,
    "train": _train, "crossvalidate": _crossvalidate, "evaluate": _evaluate, "predict": _predict,
    "population": _population, "app": _app, "export": _export,
}

if __name__ == "__main__":
    sys.exit(main())
