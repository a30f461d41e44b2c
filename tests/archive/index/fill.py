# SPDX-License-Identifier: Apache-2.0
"""Puts data sets into an index the way a store does, without a store."""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from archive.index.attributes import (
    extract,
    instance_columns,
    series_columns,
    study_columns,
    study_names,
)
from archive.index.database import Index

_TABLES = ("attribute", "name_sound", "instance", "series", "study")


def instance_of(values: dict[str, object]) -> Dataset:
    """A data set from keywords; a list of dicts is a sequence."""
    dataset = Dataset()
    for keyword, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            setattr(dataset, keyword, [instance_of(item) for item in value])
        else:
            setattr(dataset, keyword, value)
    return dataset


def empty(index: Index) -> None:
    """Remove all studies."""

    def verb() -> None:
        for table in _TABLES:
            index.database.execute_sql(f"DELETE FROM {table}")

    index.write(verb)


def fill(index: Index, datasets: Sequence[Dataset]) -> None:
    """Index all data sets in one transaction, counters included."""
    models = index.models

    def verb() -> None:
        for dataset in datasets:
            study_uid, series_uid = dataset.StudyInstanceUID, dataset.SeriesInstanceUID
            study = models.Study.get_or_none(study_instance_uid=study_uid)
            if study is None:
                columns = study_columns(dataset)
                study_id = index.insert(models.Study, **columns)
                index.insert_name_sounds(study_id, study_names(columns))
            else:
                study_id = study.id
            series = models.Series.get_or_none(series_instance_uid=series_uid)
            if series is None:
                row = series_columns(dataset)
                series_id = index.insert(models.Series, study=study_id, **row)
                count = {"number_of_series": models.Study.number_of_series + 1}
                models.Study.update(count).where(models.Study.id == study_id).execute()
            else:
                series_id = series.id
            digests = {
                name: b"digest"
                for name, field in models.Instance._meta.fields.items()
                if name.endswith("_digest") and not field.null
            }
            instance_id = index.insert(
                models.Instance,
                study=study_id,
                series=series_id,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                **instance_columns(dataset, has_pixel_data=True),
                **digests,
            )
            index.insert_attributes(instance_id, extract(dataset))
            for model, key in ((models.Study, study_id), (models.Series, series_id)):
                more = {"number_of_instances": model.number_of_instances + 1}
                model.update(more).where(model.id == key).execute()

    index.write(verb)
